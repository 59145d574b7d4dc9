/**
 * The embedded demo guard: a tiny checkpoint in the exact Qwen3Guard-Gen format that ships with the package.
 *
 * It learned synthetic phrases and two small public sets; it is for trying out and testing, not for protection
 * (models/tiny-guard-gen/README.md has its measured scores).
 */

/**
 * The checkpoint's folder: on disk in Node, fetched in a browser. Both src/guard/ and the compiled layout lie two
 * folders below the package's root.
 */
export const DEMO_GUARD: URL = new URL("../../models/tiny-guard-gen/", import.meta.url);
