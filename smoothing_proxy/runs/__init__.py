"""A folder of pictures: its question, its run, its report."""
