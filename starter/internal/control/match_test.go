package control

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/starter/internal/exit"
)

func TestMatch(t *testing.T) {
	known := []Disk{
		{ID: "d-aaaaaaaaaaaaaaaa1", Name: "one"},
		{ID: "d-aaaaaaaaaaaaaaaa1", Node: "i-00000001"}, // the same, as another source knows it
		{ID: "d-aaaaaaaaaaaaaaaa2", Name: "two"},
		{ID: "d-bbbbbbbbbbbbbbbb1", Name: "d-aaaa"}, // a name that looks like the beginning of an id
		{ID: "d-cccccccccccccccc1", Name: "twin"},
		{ID: "d-cccccccccccccccc2", Name: "twin"},
	}
	find := func(ref string) Disk {
		t.Helper()
		d, ok, err := match(ref, known)
		require.NoError(t, err)
		require.True(t, ok, ref)
		return d
	}
	require.Equal(t, Disk{ID: "d-aaaaaaaaaaaaaaaa1", Name: "one", Node: "i-00000001"}, find("one"))
	require.EqualValues(t, "d-aaaaaaaaaaaaaaaa2", find("d-aaaaaaaaaaaaaaaa2").ID)
	require.EqualValues(t, "d-bbbbbbbbbbbbbbbb1", find("d-b").ID)
	require.EqualValues(t, "d-bbbbbbbbbbbbbbbb1", find("d-aaaa").ID, "an exact name wins")

	for _, ref := range []string{"twin", "d-c", "d-aaa", "d-"} {
		_, _, err := match(ref, known)
		require.Equal(t, exit.Usage, exit.CodeOf(err), ref)
	}
	_, ok, err := match("tw", known)
	require.NoError(t, err)
	require.False(t, ok, "names are not abbreviated")
}

func TestCheckRef(t *testing.T) {
	for _, ref := range []string{"a", "ns/claim", "d-0", "d-"} {
		require.NoError(t, checkRef(ref))
	}
	for _, ref := range []string{"", "A", "a b", "--", "'; drop"} {
		require.Error(t, checkRef(ref))
	}
}

func TestNewDiskIDIsValidAndNew(t *testing.T) {
	a, b := NewDiskID(), NewDiskID()
	require.NoError(t, a.Validate())
	require.NotEqual(t, a, b)
}
