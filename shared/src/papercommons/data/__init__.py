"""Reading what users have: image folders, arrays; splits and orders that depend on a seed alone."""
