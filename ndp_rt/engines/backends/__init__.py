"""One module or folder for each library that runs engines."""
