// A photo of the user: scaled down before it is sent, and kept as long as the tab is open.

const LONGEST_SIDE = 1024;
const LARGEST_RAW = 8 * 2 ** 20;
const KEPT = 6;

export class PhotoError extends Error {}

/**
 * A data URI of at most 1024 pixels a side. A photo that this browser cannot decode is sent unchanged: the service
 * reads more formats, and reports what is wrong with a broken photo.
 */
export async function readPhoto(file) {
  if (!file.type.startsWith("image/")) throw new PhotoError(`“${file.name}” is not a photo. Use a JPEG, PNG or WebP file.`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    if (file.size === 0 || file.size > LARGEST_RAW) throw new PhotoError(`“${file.name}” cannot be read as a photo.`);
    return asDataUri(file);
  }
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.toDataURL("image/jpeg", 0.92);
}

function asDataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new PhotoError(`“${file.name}” cannot be read.`));
    reader.readAsDataURL(file);
  });
}

// The address of a photo search holds a short token; the photo itself stays in this tab.
const photos = new Map();

export function keepPhoto(dataUri) {
  const token = Date.now().toString(36);
  photos.set(token, dataUri);
  const stored = Object.keys(sessionStorage).filter((key) => key.startsWith("photo:")).sort();
  for (const key of stored.slice(0, Math.max(0, stored.length - KEPT + 1))) sessionStorage.removeItem(key);
  try {
    sessionStorage.setItem(`photo:${token}`, dataUri);
  } catch {
    console.info("The storage of this tab is full: the photo is lost when the page is reloaded.");
  }
  return token;
}

export const keptPhoto = (token) => photos.get(token) ?? sessionStorage.getItem(`photo:${token}`);
