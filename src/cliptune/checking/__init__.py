"""What is wrong with a folder of photos: findings, copies, quarantine, the page."""
