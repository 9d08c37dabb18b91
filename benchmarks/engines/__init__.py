"""Every engine on every program: it trains and beats pixels by themselves, or refuses before any work starts."""
