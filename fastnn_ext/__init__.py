"""How the operations of fastnn are done fast; imports nothing of `fastnn`."""
