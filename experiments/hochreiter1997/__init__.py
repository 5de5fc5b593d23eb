"""The LSTM of 1997: its network, its problems with their criteria, and its experiments."""
