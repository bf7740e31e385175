// What is asked of the server. All of it is on this machine.

// As many pictures may one question or one word name, and so be selected.
export const MAX_IMAGES = 200;
export const TOO_MANY = `${MAX_IMAGES} at most can be selected`;

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function answered(response) {
  let values = {};
  try {
    values = await response.json();
  } catch {
    values = { error: response.status === 403 ? "open the address that darkroom gallery printed" : response.statusText };
  }
  if (!response.ok) throw new Refused(response.status, values.error || `status ${response.status}`);
  return values;
}

export async function ask(path, parameters = "", signal = undefined) {
  return answered(await fetch(parameters.toString() ? `${path}?${parameters}` : path, { signal }));
}

export async function post(path, values) {
  const headers = { "Content-Type": "application/json" };
  return answered(await fetch(path, { method: "POST", headers, body: JSON.stringify(values) }));
}
