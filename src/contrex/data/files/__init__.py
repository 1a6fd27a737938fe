"""Reading what lies in folders: images, tables, masks, annotations; and the cache of what was found."""
