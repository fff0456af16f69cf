package pricelist

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/ebb-storage/ebb/internal/price"
)

const greatestFile = 16 << 20

// Load reads a file of prices.
func Load(name string) (price.Book, error) {
	f, err := os.Open(name)
	if err != nil {
		return price.Book{}, err //nolint:wrapcheck // it names the file
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, greatestFile+1))
	if err != nil {
		return price.Book{}, err //nolint:wrapcheck // it names the file
	}
	if len(data) > greatestFile {
		return price.Book{}, fmt.Errorf("%s: more than %d MiB", name, greatestFile>>20)
	}
	b, err := price.Load(data)
	if err != nil {
		return price.Book{}, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// LoadOrNew is Load, but an empty book when there is no file.
func LoadOrNew(name string) (price.Book, error) {
	b, err := Load(name)
	if errors.Is(err, fs.ErrNotExist) {
		return price.Book{}, nil
	}
	return b, err
}

// Merge puts lists into a book, each in the place of its region; the other
// regions stay, with the date and source they had. The book's own date is its
// oldest region's.
func Merge(old price.Book, lists ...List) price.Book {
	out := price.Book{Regions: map[string]price.Table{}}
	for region, t := range old.Regions {
		if t.Date == "" {
			t.Date = old.Date
		}
		if t.Source == "" {
			t.Source = old.Source
		}
		out.Regions[region] = t
	}
	for _, l := range lists {
		out.Regions[l.Region] = l.Table
	}
	for _, region := range slices.Sorted(maps.Keys(out.Regions)) {
		t := out.Regions[region]
		if out.Date == "" || t.Date < out.Date {
			out.Date = t.Date
		}
		switch out.Source {
		case "", t.Source:
			out.Source = t.Source
		default:
			out.Source = "several; each region has its own"
		}
	}
	return out
}

// CheckWritable tries whether Save could write a file, without changing it.
func CheckWritable(name string) error {
	target, _, err := destination(name)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(target), temporary(target))
	if err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Save writes a book, whole or not at all: who reads the file meanwhile sees the
// old one or the new one.
func Save(name string, b price.Book) (err error) {
	data, err := b.JSON()
	if err != nil {
		return err //nolint:wrapcheck // says what it is
	}
	if _, err := price.Load(data); err != nil {
		return err //nolint:wrapcheck // says what it is
	}
	target, mode, err := destination(name)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(target), temporary(target))
	if err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	if err = errors.Join(f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), target) //nolint:wrapcheck // it names both files
}

func temporary(target string) string { return "." + filepath.Base(target) + ".*" }

// destination is the file that a name means, through links, and the mode it has
// or shall have.
func destination(name string) (string, fs.FileMode, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return name, 0o644, nil
	case err != nil:
		return "", 0, err //nolint:wrapcheck // it names the file
	case !info.Mode().IsRegular():
		return "", 0, fmt.Errorf("%s is not a file", name)
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0) // a file that is read-only is so for a reason
	if err != nil {
		return "", 0, err //nolint:wrapcheck // it names the file
	}
	_ = f.Close()
	target, err := filepath.EvalSymlinks(name)
	return target, info.Mode().Perm(), err //nolint:wrapcheck // it names the file
}
