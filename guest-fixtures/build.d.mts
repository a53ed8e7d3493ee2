/** Builds the images that are out of date (all, with `force`); returns their paths by name. */
export function buildFixtures(options?: { force?: boolean }): Promise<Readonly<Record<string, string>>>;
