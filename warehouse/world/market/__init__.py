"""The onsite market of the synthetic world: advertisements, the funnel that all candidates run through, the auction."""
