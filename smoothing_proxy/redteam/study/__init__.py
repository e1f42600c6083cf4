"""Tables of defences x attacks x classifiers, a cell at a time, on pictures that all of them share."""
