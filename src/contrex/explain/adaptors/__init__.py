"""Methods of other libraries behind contrex's front door."""
