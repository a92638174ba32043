"""A file is a format that segments are written in: `pixelwise convert --to NAME`, `pixelwise predict --save NAME`."""
