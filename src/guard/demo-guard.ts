/**
 * The embedded demo guard: a tiny checkpoint in the exact Qwen3Guard-Gen format that ships with the package.
 *
 * It was trained on synthetic phrases and two small public sets. It is for trying out and testing, not for protection;
 * models/tiny-guard-gen/README.md has its measured scores.
 */

/**
 * The checkpoint's folder: on disk in Node, fetched in a browser. The path is right for src/ and for the compiled
 * files, as both are two folders below the package's root.
 */
export const DEMO_GUARD: URL = new URL("../../models/tiny-guard-gen/", import.meta.url);
