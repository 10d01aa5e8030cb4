"""The instances' network: the switch, addresses, cables and published ports."""
