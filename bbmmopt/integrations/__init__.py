"""Bridges to other libraries, a file or folder each: imported only by those who use them."""
