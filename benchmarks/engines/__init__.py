"""Every engine on every program: it trains and beats independent pixels, or refuses before any work starts."""
