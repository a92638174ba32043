"""One file is one format that segments can be written in: `pixelwise convert --to NAME`, `pixelwise predict --save NAME`."""
