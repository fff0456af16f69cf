package pricelist

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ebb-storage/ebb/internal/price"
)

// List is what a region's price list says of EBS.
type List struct {
	Region    string
	Published time.Time
	Version   string
	Rows      int64 // read, of which few are EBS's
	Table     price.Table
	Notes     []string // what the list does not have
}

// greatestRecord bounds what is held: a row has a few KiB, a quote that never
// ends would be the whole file.
const greatestRecord = 1 << 20

// columns are those that are read, by their names in the header line.
var columns = []string{
	"SKU", "TermType", "Unit", "PricePerUnit", "Currency", "Product Family",
	"Location Type", "usageType", "Region Code", "Volume API Name",
}

const (
	colSKU = iota
	colTerm
	colUnit
	colPrice
	colCurrency
	colFamily
	colLocation
	colUsage
	colRegion
	colVolume
)

// Read reads a list to its end and takes region's EBS prices: of the on-demand
// terms, in the region itself, not in its local zones.
func Read(r io.Reader, region string) (List, error) {
	in := &bounded{r: r, left: greatestRecord}
	buf := bufio.NewReaderSize(in, 64<<10)
	if err := lookAtBeginning(buf); err != nil {
		return List{}, in.or(err)
	}
	rows := csv.NewReader(buf)
	rows.ReuseRecord = true
	rows.FieldsPerRecord = -1
	l := List{Region: region}
	at, width, err := l.head(rows, in)
	if err != nil {
		return List{}, in.or(err)
	}
	rows.FieldsPerRecord = width
	c := collection{prices: map[string]found{}, free: map[string]string{}}
	var other string // region that has EBS prices here
	for {
		in.left = greatestRecord
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return List{}, in.or(fmt.Errorf("%w: %w", ErrFormat, err))
		}
		l.Rows++
		if err := c.take(row, at, region, &other); err != nil {
			return List{}, err
		}
	}
	if len(c.prices)+len(c.free) == 0 {
		if other != "" {
			return List{}, fmt.Errorf("%w: it has no EBS prices of %s, but of %s", ErrPrices, region, clip(other))
		}
		return List{}, fmt.Errorf("%w: it has no EBS prices of %s; the first that is looked for is usage type %s of Product Family %s", ErrPrices, region, usageOfGP3, familyStorage)
	}
	l.Table, l.Notes, err = c.table(region)
	if err != nil {
		return List{}, err
	}
	return l, nil
}

// lookAtBeginning tells what people get instead of a list by what it is.
func lookAtBeginning(buf *bufio.Reader) error {
	start, err := buf.Peek(256)
	text := strings.ToLower(strings.TrimSpace(strings.TrimPrefix(string(start), "\ufeff")))
	if strings.HasPrefix(string(start), "\ufeff") {
		_, _ = buf.Discard(len("\ufeff"))
	}
	switch {
	case strings.HasPrefix(text, "<!doctype html"), strings.HasPrefix(text, "<html"):
		return fmt.Errorf("%w: it is a web page (HTML)", ErrFormat)
	case strings.HasPrefix(text, "<"):
		return fmt.Errorf("%w: it is XML or HTML", ErrFormat)
	case strings.HasPrefix(text, "{"):
		return fmt.Errorf("%w: it is JSON", ErrFormat)
	case text == "" && errors.Is(err, io.EOF):
		return fmt.Errorf("%w: it is empty", ErrFormat)
	}
	return nil
}

// head reads what comes before the rows: five lines about the list, and the
// header line. It returns where each of columns is, and how many there are.
func (l *List) head(rows *csv.Reader, in *bounded) (at []int, width int, err error) {
	const most = 20
	said := map[string]string{}
	for range most {
		in.left = greatestRecord
		row, err := rows.Read()
		switch {
		case errors.Is(err, io.EOF):
			return nil, 0, fmt.Errorf("%w: it ends before the header line", ErrFormat)
		case err != nil:
			return nil, 0, fmt.Errorf("%w: %w", ErrFormat, err)
		case row[0] == columns[colSKU]:
			if at, err = find(row); err != nil {
				return nil, 0, err
			}
			return at, len(row), l.describe(said)
		case len(row) != 2:
			return nil, 0, fmt.Errorf("%w: %d fields before the header line, where a name and a value belong", ErrFormat, len(row))
		}
		said[clip(row[0])] = clip(row[1])
	}
	return nil, 0, fmt.Errorf("%w: no header line that begins with SKU", ErrFormat)
}

func find(header []string) ([]int, error) {
	at := make([]int, len(columns))
	for i, name := range columns {
		at[i] = -1
		for j, h := range header {
			if h != name {
				continue
			}
			if at[i] >= 0 {
				return nil, fmt.Errorf("%w: two columns are called %q", ErrFormat, name)
			}
			at[i] = j
		}
		if at[i] < 0 {
			return nil, fmt.Errorf("%w: there is no column %q", ErrFormat, name)
		}
	}
	return at, nil
}

// describe takes what the first lines say.
func (l *List) describe(said map[string]string) error {
	if code := said["OfferCode"]; code != "AmazonEC2" {
		return fmt.Errorf("%w: its OfferCode is %q, want AmazonEC2", ErrFormat, code)
	}
	if v := said["FormatVersion"]; v != "v1.0" {
		return fmt.Errorf("%w: its FormatVersion is %q, want v1.0", ErrFormat, v)
	}
	published, err := time.Parse(time.RFC3339, said["Publication Date"])
	if err != nil {
		return fmt.Errorf("%w: its Publication Date is %q", ErrFormat, said["Publication Date"])
	}
	l.Published, l.Version = published.UTC(), said["Version"]
	return nil
}

// take takes a row, if it is one of those wanted.
func (c *collection) take(row []string, at []int, region string, other *string) error {
	get := func(col int) string { return row[at[col]] }
	if get(colTerm) != "OnDemand" || get(colLocation) != "AWS Region" {
		return nil
	}
	usage := withoutPrefix(get(colUsage))
	r, ok := rates[usage]
	if !ok || get(colFamily) != r.family {
		return nil
	}
	if get(colRegion) != region {
		if *other == "" {
			*other = strings.Clone(get(colRegion))
		}
		return nil
	}
	sku := get(colSKU)
	if v := get(colVolume); r.per == perGiB && r.typ != "" && v != r.typ {
		return rowError(sku, "usage type %s is of %s volumes, but Volume API Name is %q", clip(get(colUsage)), r.typ, clip(v))
	}
	if cur := get(colCurrency); cur != "USD" {
		return rowError(sku, "its price is in %s; Ebb counts in USD", clip(cur))
	}
	usd, err := usdPer(r.per, get(colUnit), get(colPrice), sku)
	if err != nil {
		return err
	}
	return c.add(usage, usd, sku)
}

// bounded reads no more than left bytes; who reads sets it anew for each record.
// It remembers the error that reading ended with, which a parser may hide behind
// what it makes of the half row it got.
type bounded struct {
	r    io.Reader
	left int
	err  error
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.err = fmt.Errorf("%w: a row of more than %d MiB", ErrFormat, greatestRecord>>20)
		return 0, b.err
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// or is the error of reading, else err.
func (b *bounded) or(err error) error {
	if b.err != nil {
		return b.err
	}
	return err
}
