"""`berth top`: what every deployment does now."""
