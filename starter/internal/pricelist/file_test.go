package pricelist_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/starter/internal/pricelist"
)

func listOf(t *testing.T, region, source string) pricelist.List {
	t.Helper()
	l, err := read(t, sample(t, region), region)
	require.NoError(t, err)
	l.Table.Date, l.Table.Source = l.Published.Format("2006-01-02"), source
	return l
}

func TestMergeReplacesARegionAndKeepsTheRest(t *testing.T) {
	old := price.BuiltIn()
	b := pricelist.Merge(old, listOf(t, "us-east-1", "a"), listOf(t, "ap-northeast-1", "b"))
	require.Len(t, b.Regions, 4)
	require.Equal(t, "2026-09-21", b.Date, "the oldest region's")
	require.Contains(t, b.Source, "each region has its own")
	for region, want := range map[string][2]string{
		"us-east-1": {"2026-09-21", "a"}, "ap-northeast-1": {"2026-10-05", "b"}, "us-west-2": {old.Date, old.Source},
	} {
		p, ok := b.In(region)
		require.True(t, ok)
		require.Equal(t, want, [2]string{p.Date, p.Source}, region)
	}
	p, _ := b.In("us-east-1")
	require.InDelta(t, .0455, p.Types["io2"].IOPS[1].Each, 1e-12)
	p, _ = b.In("us-west-2")
	require.InDelta(t, .046, p.Types["io2"].IOPS[1].Each, 1e-12)
	require.Empty(t, old.Regions["us-west-2"].Date, "the old book is as it was")

	one := pricelist.Merge(price.Book{}, listOf(t, "us-east-1", "a"))
	require.Equal(t, []string{"2026-09-21", "a"}, []string{one.Date, one.Source})
}

func TestSaveAndLoad(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "prices.json")
	b, err := pricelist.LoadOrNew(name)
	require.NoError(t, err)
	require.Empty(t, b.Regions)
	b = pricelist.Merge(b, listOf(t, "us-east-1", "a"))
	require.NoError(t, pricelist.Save(name, b))
	got, err := pricelist.Load(name)
	require.NoError(t, err)
	require.Equal(t, b, got)
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), info.Mode().Perm())

	// A link stays one, a mode stays what it is.
	require.NoError(t, os.Chmod(name, 0o600))
	link := filepath.Join(dir, "link.json")
	require.NoError(t, os.Symlink("prices.json", link))
	b = pricelist.Merge(b, listOf(t, "ap-northeast-1", "b"))
	require.NoError(t, pricelist.CheckWritable(link))
	require.NoError(t, pricelist.Save(link, b))
	got, err = pricelist.Load(name)
	require.NoError(t, err)
	require.Len(t, got.Regions, 2)
	info, err = os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	// What could not be read again is not written, and nothing is left behind.
	require.ErrorContains(t, pricelist.Save(name, price.Book{}), "no region")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	got, err = pricelist.Load(name)
	require.NoError(t, err)
	require.Len(t, got.Regions, 2)
}

func TestFilesThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	b := price.BuiltIn()
	for name, want := range map[string]string{
		dir: "is not a file",
		filepath.Join(dir, "none", "prices.json"): "no such file or directory",
		"/dev/null": "is not a file",
	} {
		require.ErrorContains(t, pricelist.CheckWritable(name), want)
		require.ErrorContains(t, pricelist.Save(name, b), want)
	}
	bad := filepath.Join(dir, "bad.json")
	require.NoError(t, os.WriteFile(bad, []byte("{}"), 0o600))
	_, err := pricelist.LoadOrNew(bad)
	require.ErrorContains(t, err, bad+": price list: date")
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	require.NoError(t, os.Chmod(bad, 0o400))
	require.ErrorContains(t, pricelist.CheckWritable(bad), "permission denied")
}
