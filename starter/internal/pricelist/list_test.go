package pricelist_test

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/starter/internal/pricelist"
)

// sample is a list of a region in the documented shape.
func sample(t testing.TB, region string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", region+".csv"))
	require.NoError(t, err)
	return string(b)
}

func read(t testing.TB, text, region string) (pricelist.List, error) {
	t.Helper()
	return pricelist.Read(strings.NewReader(text), region)
}

func TestPricesOfTheSample(t *testing.T) {
	l, err := read(t, sample(t, "us-east-1"), "us-east-1")
	require.NoError(t, err)
	require.Equal(t, price.Table{
		Types: map[string]plan.TypePrices{
			"gp2": {GiB: .1},
			"gp3": {GiB: .08, IOPS: []plan.Tier{{From: 3000, Each: .005}}, MiBs: []plan.Tier{{From: 125, Each: .04}}},
			"io1": {GiB: .125, IOPS: []plan.Tier{{Each: .065}}},
			"io2": {GiB: .125, IOPS: []plan.Tier{{Each: .065}, {From: 32000, Each: .0455}, {From: 64000, Each: .03185}}},
			"sc1": {GiB: .015}, "st1": {GiB: .045}, "standard": {GiB: .05},
		},
		SnapshotGiBMonth: .05,
	}, l.Table)
	require.Empty(t, l.Notes)
	require.Equal(t, time.Date(2026, 9, 21, 19, 47, 12, 0, time.UTC), l.Published)
	require.Equal(t, "20260921194712", l.Version)
	require.EqualValues(t, 24, l.Rows)

	l, err = read(t, sample(t, "ap-northeast-1"), "ap-northeast-1")
	require.NoError(t, err)
	require.Equal(t, plan.TypePrices{GiB: .096, IOPS: []plan.Tier{{From: 3000, Each: .006}}, MiBs: []plan.Tier{{From: 125, Each: .048}}}, l.Table.Types["gp3"])
	require.Equal(t, []plan.Tier{{Each: .074}, {From: 32000, Each: .0518}, {From: 64000, Each: .03626}}, l.Table.Types["io2"].IOPS)
	require.NotContains(t, l.Table.Types, "standard")
	require.Equal(t, []string{"no prices of standard"}, l.Notes)
}

// What volumes cost by the list, computed by hand.
func TestVolumesByTheSample(t *testing.T) {
	l, err := read(t, sample(t, "ap-northeast-1"), "ap-northeast-1")
	require.NoError(t, err)
	for _, tt := range []struct {
		v    plan.Volume
		want float64
	}{
		{plan.Volume{Type: "gp3", GiB: 100, IOPS: 3000, ThroughputMiBs: 125}, 9.6},
		{plan.Volume{Type: "gp3", GiB: 100, IOPS: 3001, ThroughputMiBs: 126}, 9.6 + .006 + .048},
		{plan.Volume{Type: "io2", GiB: 100, IOPS: 32000}, 14.2 + 2368},
		{plan.Volume{Type: "io2", GiB: 100, IOPS: 64001}, 14.2 + 2368 + 1657.6 + .03626},
		{plan.Volume{Type: "io1", GiB: 10, IOPS: 1000}, 1.42 + 74},
	} {
		require.InDelta(t, tt.want, l.Table.VolumeMonth(tt.v), 1e-9, "%+v", tt.v)
	}
	require.InDelta(t, .05, l.Table.SnapshotGiBMonth, 1e-12)
}

// The list of all regions has many; the one asked for counts.
func TestRegionIsPickedOut(t *testing.T) {
	_, tokyo, _ := strings.Cut(sample(t, "ap-northeast-1"), "VPCNetworkingSupport\"\n")
	both := sample(t, "us-east-1") + tokyo
	for region, want := range map[string]float64{"us-east-1": .08, "ap-northeast-1": .096} {
		l, err := read(t, both, region)
		require.NoError(t, err)
		require.InDelta(t, want, l.Table.Types["gp3"].GiB, 1e-12)
	}
	_, err := read(t, tokyoOnly(t), "eu-west-1")
	require.ErrorIs(t, err, pricelist.ErrPrices)
	require.ErrorContains(t, err, "no EBS prices of eu-west-1, but of ap-northeast-1")
}

func tokyoOnly(t *testing.T) string { return sample(t, "ap-northeast-1") }

// lineOf is the sample's line that has a text, with its end.
func lineOf(t testing.TB, text, has string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if strings.Contains(line, has) {
			return line
		}
	}
	t.Fatalf("no line has %s", has)
	return ""
}

func TestListIsRefused(t *testing.T) {
	good := sample(t, "us-east-1")
	without := func(has string) string { return strings.ReplaceAll(good, lineOf(t, good, has), "") }
	swap := func(old, with string) string {
		require.Contains(t, good, old)
		return strings.Replace(good, old, with, 1)
	}
	for name, tt := range map[string]struct {
		text string
		kind error
		want string
	}{
		"no gp3":             {without("JG3KUJMBRGHV3N8G"), pricelist.ErrPrices, `SKU "USE1SAMPLEGP3IOP": a price of gp3 is here, but EBS:VolumeUsage.gp3 (Storage, per GiB-month) is missing`},
		"no throughput":      {without("USE1SAMPLEGP3THR"), pricelist.ErrPrices, "EBS:VolumeP-Throughput.gp3 (Provisioned Throughput, per MiB/s-month) is missing"},
		"no tier of io2":     {without("USE1SAMPLEIO2IO2"), pricelist.ErrPrices, "EBS:VolumeP-IOPS.io2.tier2 (System Operation, per IOPS-month) is missing"},
		"no GiB of io1":      {without("USE1SAMPLEIO1GB0"), pricelist.ErrPrices, `SKU "USE1SAMPLEIO1IOP": a price of io1 is here, but EBS:VolumeUsage.piops`},
		"no snapshots":       {without("7U7TWP44UP36AT3R"), pricelist.ErrPrices, "no price of snapshots in us-east-1: usage type EBS:SnapshotUsage"},
		"free IOPS alone":    {without("USE1SAMPLEGP3IOP"), pricelist.ErrPrices, `SKU "OTHER00000000007": EBS:VolumeP-IOPS.gp3 in us-east-1 costs nothing`},
		"two prices":         {good + strings.Replace(strings.Replace(lineOf(t, good, "JG3KUJMBRGHV3N8G"), "JG3KUJMBRGHV3N8G", "JG3KUJMBRGHVAGAIN", 1), `"0.0800000000"`, `"0.0900000000"`, 1), pricelist.ErrPrices, `SKU "JG3KUJMBRGHVAGAIN": EBS:VolumeUsage.gp3 costs 0.09 USD here and 0.08 USD in SKU "JG3KUJMBRGHV3N8G"`},
		"unit":               {swap(`"GiBps-mo","40.96`, `"Gbps-mo","40.96`), pricelist.ErrPrices, `SKU "USE1SAMPLEGP3THR": its unit is "Gbps-mo", which is no MiB/s-month`},
		"price is a word":    {swap(`"0.0800000000"`, `"NaN"`), pricelist.ErrPrices, `SKU "JG3KUJMBRGHV3N8G": its price is "NaN"`},
		"price is negative":  {swap(`"0.0800000000"`, `"-0.08"`), pricelist.ErrPrices, `its price is "-0.08"`},
		"price is too high":  {swap(`"0.0800000000"`, `"80000"`), pricelist.ErrPrices, "80000 USD for one GiB-month cannot be"},
		"currency":           {strings.ReplaceAll(good, `"USD"`, `"CNY"`), pricelist.ErrPrices, "its price is in CNY; Ebb counts in USD"},
		"volume type":        {swap(`,"gp2",`, `,"gp9",`), pricelist.ErrPrices, `SKU "HY3BZPP2B6K8MSJF": usage type EBS:VolumeUsage.gp2 is of gp2 volumes, but Volume API Name is "gp9"`},
		"nothing of EBS":     {good[:strings.Index(good, `"JG3K`)], pricelist.ErrPrices, "no EBS prices of us-east-1"},
		"page":               {"  <!DOCTYPE html><html><body>Sign in</body></html>", pricelist.ErrFormat, "web page (HTML)"},
		"XML":                {"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", pricelist.ErrFormat, "XML or HTML"},
		"JSON":               {`{"formatVersion": "v1.0"}`, pricelist.ErrFormat, "it is JSON"},
		"empty":              {"", pricelist.ErrFormat, "it is empty"},
		"other service":      {swap(`"AmazonEC2"`, `"AmazonRDS"`), pricelist.ErrFormat, `OfferCode is "AmazonRDS", want AmazonEC2`},
		"other format":       {swap(`"v1.0"`, `"v2.0"`), pricelist.ErrFormat, `FormatVersion is "v2.0"`},
		"no date":            {swap(`"2026-09-21T19:47:12Z"`, `"yesterday"`), pricelist.ErrFormat, `Publication Date is "yesterday"`},
		"no column":          {swap(`"usageType"`, `"usage"`), pricelist.ErrFormat, `there is no column "usageType"`},
		"column twice":       {swap(`"serviceCode"`, `"Unit"`), pricelist.ErrFormat, `two columns are called "Unit"`},
		"no header":          {strings.Repeat("\"a\",\"b\"\n", 30), pricelist.ErrFormat, "no header line"},
		"other CSV":          {"name,size,used\na,1,2\n", pricelist.ErrFormat, "3 fields before the header line"},
		"ends in the head":   {good[:60], pricelist.ErrFormat, ""},
		"ends in a row":      {good[:len(good)-40], pricelist.ErrFormat, "wrong number of fields"},
		"a quote stays open": {good + `"` + strings.Repeat("x\n", 1<<20), pricelist.ErrFormat, "a row of more than 1 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t, tt.text, "us-east-1")
			require.ErrorIs(t, err, tt.kind)
			require.ErrorContains(t, err, tt.want)
			require.Less(t, len(err.Error()), 500)
		})
	}
}

// Rows that differ from a wanted one in a single field, and have another price.
func TestRowsThatLookAlikeDoNotCount(t *testing.T) {
	good := sample(t, "us-east-1")
	gp3 := strings.Replace(lineOf(t, good, "JG3KUJMBRGHV3N8G"), `"0.0800000000"`, `"0.0900000000"`, 1)
	for old, with := range map[string]string{
		`"AWS Region"`:            `"AWS Local Zone"`,
		`"OnDemand"`:              `"FlatRate"`,
		`"Storage"`:               `"Fee"`,
		`"us-east-1"`:             `"us-east-1-bos-1"`,
		`,"EBS:VolumeUsage.gp3"`:  `,"USE1-BOS1-EBS:VolumeUsage.gp3"`,
		`,"EBS:VolumeUsage.gp3",`: `,"EBS:VolumeUsage.gp3-Outposts",`,
	} {
		require.Equal(t, 1, strings.Count(gp3, old), old)
		l, err := read(t, good+strings.Replace(gp3, old, with, 1), "us-east-1")
		require.NoError(t, err, with)
		require.InDelta(t, .08, l.Table.Types["gp3"].GiB, 1e-12, with)
	}
	// In some regions the list spells units out, or prices a MiB/s.
	l, err := read(t, strings.ReplaceAll(strings.ReplaceAll(good, `"GB-Mo"`, `"GB-month"`), `"GiBps-mo","40.9600000000"`, `"MiBps-Mo","0.0400000000"`), "us-east-1")
	require.NoError(t, err)
	require.Equal(t, []plan.Tier{{From: 125, Each: .04}}, l.Table.Types["gp3"].MiBs)
}

func TestByteOrderMarkAndCRLF(t *testing.T) {
	l, err := read(t, "\ufeff"+strings.ReplaceAll(sample(t, "us-east-1"), "\n", "\r\n"), "us-east-1")
	require.NoError(t, err)
	require.InDelta(t, .08, l.Table.Types["gp3"].GiB, 1e-12)
}

// padded is a list with many rows that nobody wants before those that count,
// made as it is read.
func padded(t testing.TB, rows int) io.Reader {
	text := sample(t, "us-east-1")
	box := lineOf(t, text, "BoxUsage")
	head, tail, ok := strings.Cut(text, box)
	require.True(t, ok)
	return io.MultiReader(strings.NewReader(head), &repeated{line: box, left: rows * len(box)}, strings.NewReader(tail))
}

type repeated struct {
	line     string
	at, left int
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.left)], r.line[r.at:])
	r.at, r.left = (r.at+n)%len(r.line), r.left-n
	return n, nil
}

// A list of 60 MB leaves no more behind than a small one.
func TestLongListIsNotHeld(t *testing.T) {
	const rows = 150_000
	before := heap()
	l, err := pricelist.Read(padded(t, rows), "us-east-1")
	require.NoError(t, err)
	require.EqualValues(t, rows+23, l.Rows)
	require.Less(t, heap()-before, int64(4<<20))
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// narrow is a list with the columns alone that are read, in another order.
func narrow(t testing.TB, text string) string {
	t.Helper()
	keep := []string{"SKU", "Volume API Name", "Region Code", "usageType", "Location Type", "Product Family", "Currency", "PricePerUnit", "Unit", "TermType"}
	in := csv.NewReader(strings.NewReader(text))
	in.FieldsPerRecord = -1
	rows, err := in.ReadAll()
	require.NoError(t, err)
	var b strings.Builder
	out := csv.NewWriter(&b)
	var header []string
	for _, row := range rows {
		if row[0] == "SKU" {
			header = row
		}
		if header != nil {
			cells := make([]string, len(keep))
			for i, name := range keep {
				cells[i] = row[slices.Index(header, name)]
			}
			row = cells
		}
		require.NoError(t, out.Write(row))
	}
	out.Flush()
	return b.String()
}

func TestColumnsMayStandInAnyOrder(t *testing.T) {
	text := narrow(t, sample(t, "us-east-1"))
	require.Less(t, len(text), 3500)
	narrowed, err := read(t, text, "us-east-1")
	require.NoError(t, err)
	whole, err := read(t, sample(t, "us-east-1"), "us-east-1")
	require.NoError(t, err)
	require.Equal(t, whole, narrowed)
}

func FuzzRead(f *testing.F) {
	for _, region := range []string{"us-east-1", "ap-northeast-1"} {
		f.Add(narrow(f, sample(f, region)), region) // few columns: mutations hit what is read
	}
	f.Add("\"FormatVersion\",\"v1.0\"\n\"SKU\"\n", "us-east-1")
	f.Add("<html>", "x")
	f.Fuzz(func(t *testing.T, text, region string) {
		l, err := pricelist.Read(strings.NewReader(text), region)
		if err != nil {
			if l.Table.Types != nil {
				t.Fatal("an error and a list")
			}
			return
		}
		// Whatever is accepted can be kept, and be planned with.
		l.Table.Date = l.Published.Format(time.DateOnly)
		data, err := pricelist.Merge(price.Book{}, l).JSON()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := price.Load(data); err != nil {
			t.Fatal(fmt.Errorf("accepted, but cannot be read again: %w", err))
		}
	})
}
