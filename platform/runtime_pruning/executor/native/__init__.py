"""The C++ library: built, loaded, and the structures that it shares with Python."""
