// Reads a ZIP of files that are stored as they are, from its directory at the end; parts of a blob are not copied.

const END = 0x06054b50, ENTRY = 0x02014b50, STORED = 0, LONGEST_END = 65557;

/**
 * @param {Blob} zip
 * @returns {Promise<Map<string, Blob>>} each file by its name.
 */
export async function readZip(zip) {
  const tail = new DataView(await zip.slice(Math.max(0, zip.size - LONGEST_END)).arrayBuffer());
  let end = tail.byteLength - 22;
  while (end >= 0 && tail.getUint32(end, true) !== END) end--;
  if (end < 0) throw new Error("the stems did not arrive whole");
  const first = tail.getUint32(end + 16, true), length = tail.getUint32(end + 12, true);
  const directory = new DataView(await zip.slice(first, first + length).arrayBuffer());
  const files = new Map();
  for (let at = 0; at < directory.byteLength && directory.getUint32(at, true) === ENTRY;) {
    if (directory.getUint16(at + 10, true) !== STORED) throw new Error("the stems are compressed");
    const size = directory.getUint32(at + 20, true), local = directory.getUint32(at + 42, true);
    const [name, extra, comment] = [28, 30, 32].map((offset) => directory.getUint16(at + offset, true));
    const text = new TextDecoder().decode(new Uint8Array(directory.buffer, at + 46, name));
    const head = new DataView(await zip.slice(local, local + 30).arrayBuffer());
    const start = local + 30 + head.getUint16(26, true) + head.getUint16(28, true);
    files.set(text, zip.slice(start, start + size, "audio/wav"));
    at += 46 + name + extra + comment;
  }
  return files;
}
