"""The gallery: a web page of this machine alone, over an output folder. It reads; ratings are all that it writes."""
