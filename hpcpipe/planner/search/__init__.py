"""The search for few arrays that follow an irregular graph closely."""
