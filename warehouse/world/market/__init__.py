"""The onsite market of the synthetic world: ads, the funnel that all candidates run through, the auction."""
