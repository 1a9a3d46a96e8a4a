"""Where tiles lie, how their seams are weighted, how many fit into memory."""
