"""The part of pyengine that runs on any host: command line, machines, and the way into them."""
