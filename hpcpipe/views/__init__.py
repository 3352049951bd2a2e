"""The views on a run: status, plan, watch and explain, as text or as a drawing."""
