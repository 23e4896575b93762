/** The answer; undefined where it does not come in so many milliseconds, or not at all. */
export async function inTime<T>(answer: Promise<T>, milliseconds: number): Promise<T | undefined> {
  const timeout = new Promise<undefined>((resolve) => {
    setTimeout(() => resolve(undefined), milliseconds).unref();
  });
  return Promise.race([answer.catch(() => undefined), timeout]);
}
