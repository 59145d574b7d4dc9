/** What a clone without git-lfs has in place of a large file: a few lines of text that say where the file is. */

const MARK = new TextEncoder().encode("version https://git-lfs.github.com/spec/");

/** How many bytes `isLfsPointer` looks at. */
export const LFS_MARK_BYTES: number = MARK.length;

/** The message for such a file, to follow its name. */
export const GOT_LFS_POINTER = "expected the file itself, got a git-lfs pointer (git lfs pull fetches it)";

/** Whether a file that begins with `bytes` is a git-lfs pointer. */
export function isLfsPointer(bytes: Uint8Array): boolean {
  return MARK.every((byte, i) => bytes[i] === byte);
}
