// Light, dark, or as the system has it; remembered where the browser lets us.

import { useEffect, useState } from "preact/hooks";

const THEMES = ["auto", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];

export function useTheme(): readonly [theme: Theme, next: () => void, dark: boolean] {
  const [theme, setTheme] = useState<Theme>(remembered);
  const [system, setSystem] = useState(() => matchMedia("(prefers-color-scheme: dark)").matches);
  useEffect(() => {
    const query = matchMedia("(prefers-color-scheme: dark)");
    const changed = (): void => setSystem(query.matches);
    query.addEventListener("change", changed);
    return () => query.removeEventListener("change", changed);
  }, []);
  const dark = theme === "dark" || (theme === "auto" && system);
  // Before anything is drawn with its colours.
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const next = (): void => {
    const chosen = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]!;
    setTheme(chosen);
    try {
      localStorage.setItem("theme", chosen);
    } catch {
      // Not remembered, then.
    }
  };
  return [theme, next, dark];
}

function remembered(): Theme {
  try {
    return THEMES.find((theme) => theme === localStorage.getItem("theme")) ?? "auto";
  } catch {
    return "auto";
  }
}
