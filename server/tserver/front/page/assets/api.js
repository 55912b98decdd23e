// Asks the server. The token is in this tab alone, and travels in a header, never in an address.

export class SignIn extends Error {}
export class Refused extends Error {}
export class Away extends Error {}

const KEY = "token";
let token = sessionStorage.getItem(KEY) ?? "";

export function useToken(text) {
  token = text.trim();
  if (token) sessionStorage.setItem(KEY, token);
  else sessionStorage.removeItem(KEY);
}

export const hasToken = () => token !== "";

// What is at a path under /api/v1. Throws SignIn, Refused with what the server says, Away where nobody answers.
export async function ask(path, query = {}, signal = undefined) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== false);
  const text = given.length ? `?${new URLSearchParams(given)}` : "";
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(`/api/v1/${path}${text}`, { headers, signal, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Away("The server does not answer.");
  }
  if (answer.status === 401) throw new SignIn("The token is not valid here.");
  const told = await answer.json().catch(() => ({ error: `status ${answer.status}` }));
  if (!answer.ok) throw new Refused(told.error);
  return told;
}
