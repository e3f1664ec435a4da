"""Population: the clients of a federation, their architectures, profiles and conditions."""
