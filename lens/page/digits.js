export async function digitPage() {}
