"""One visible loop, its optimizer, and what a stopped run needs to go on."""
