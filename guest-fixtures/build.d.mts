/** Builds the images that are out of date (all, with `force`), each told to `building` before; returns their paths by name. */
export function buildFixtures(options?: {
  force?: boolean;
  building?: (name: string) => void;
}): Promise<Readonly<Record<string, string>>>;
