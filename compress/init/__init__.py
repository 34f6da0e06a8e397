"""`limbeck init PATH`: look at a file or folder of data, and write a commented recipe that fits it."""
