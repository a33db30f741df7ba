"""Labels that photos contradict, and photos whose label would tell most."""
