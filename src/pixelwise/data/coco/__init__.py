"""COCO's JSON (Lin et al. 2014, 1405.0312; Kirillov et al. 2018, 1801.00868): index, classes, images, truth."""
