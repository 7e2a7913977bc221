// A recipe.yaml that is chosen, or dropped anywhere on the fold, goes into the box above and is applied.
async function take(file) {
  if (!file) return;
  trigger('do', {do: 'open', text: await file.slice(0, 1_000_000).text()});
}
element.addEventListener('change', e => {
  take(e.target.files?.[0]);
  e.target.value = '';
});
for (const kind of ['dragover', 'drop']) document.addEventListener(kind, e => {
  if (!e.target.closest?.('#recipe-file') || !e.dataTransfer?.types.includes('Files')) return;
  e.preventDefault();
  if (kind === 'drop') take(e.dataTransfer.files[0]);
});
