"""Clips with sound, read by timestamps and written; needs the extra ``papercommons[video]``."""
