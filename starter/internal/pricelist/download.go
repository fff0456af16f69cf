package pricelist

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// DefaultURL is where AWS publishes the list of a region; {region} stands for
// its name.
const DefaultURL = "https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AmazonEC2/current/{region}/index.csv"

const placeholder = "{region}"

// Options of a download. The zero value is AWS with sensible limits.
type Options struct {
	URL      string        // DefaultURL when empty
	MaxBytes int64         // of the list itself, unpacked; 0: 8 GiB
	Stall    time.Duration // how long nothing may come; 0: a minute
	Total    time.Duration // how long all may take; 0: an hour

	// Progress is told how much has come, of a total that is -1 when the server
	// does not say. It is called often, from the calling goroutine.
	Progress func(done, total int64)
}

const (
	defaultMaxBytes = 8 << 30
	defaultStall    = time.Minute
	defaultTotal    = time.Hour
	longestURL      = 2000
)

var regionName = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]{2,16}){1,3}-[0-9]{1,2}$`)

// CheckRegion refuses what cannot be a region's name, and the regions whose
// prices are not in USD.
func CheckRegion(region string) error {
	switch {
	case !regionName.MatchString(region):
		return fmt.Errorf("%w: %q is no name of a region, such as eu-central-1", ErrURL, clip(region))
	case strings.HasPrefix(region, "cn-"):
		return fmt.Errorf("%w: %s: the prices of the regions in China are in another list, in CNY; Ebb counts in USD", ErrURL, region)
	}
	return nil
}

// ListURL is the address of a region's list. pattern "" is DefaultURL. Only https
// is allowed, but for this machine itself.
func ListURL(pattern, region string) (string, error) {
	if pattern == "" {
		pattern = DefaultURL
	}
	if err := CheckRegion(region); err != nil {
		return "", err
	}
	if len(pattern) > longestURL {
		return "", fmt.Errorf("%w: it has %d characters", ErrURL, len(pattern))
	}
	text := strings.ReplaceAll(pattern, placeholder, region)
	u, err := url.Parse(text)
	if err != nil {
		return "", fmt.Errorf("%w: %q cannot be read", ErrURL, clip(pattern))
	}
	return text, checkURL(u)
}

// HasRegion tells whether a pattern gives each region an address of its own.
func HasRegion(pattern string) bool {
	return pattern == "" || strings.Contains(pattern, placeholder)
}

func checkURL(u *url.URL) error {
	switch {
	case u.User != nil:
		return fmt.Errorf("%w: %s: a password in it would be written into the price list", ErrURL, u.Redacted())
	case u.Host == "":
		return fmt.Errorf("%w: %q names no host", ErrURL, clip(u.String()))
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return fmt.Errorf("%w: %q: want https", ErrURL, clip(u.String()))
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

var errStalled = errors.New("nothing came for too long")

// Download reads a region's list from the network. It stores nothing.
func Download(ctx context.Context, region string, o Options) (List, error) {
	text, err := ListURL(o.URL, region)
	if err != nil {
		return List{}, err
	}
	o.MaxBytes = orInt(o.MaxBytes, defaultMaxBytes)
	o.Stall, o.Total = orInt(o.Stall, defaultStall), orInt(o.Total, defaultTotal)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	total := time.AfterFunc(o.Total, func() { cancel(fmt.Errorf("it took longer than %s", o.Total)) })
	defer total.Stop()
	stall := time.AfterFunc(o.Stall, func() { cancel(fmt.Errorf("%w: %s", errStalled, o.Stall)) })
	defer stall.Stop()

	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSHandshakeTimeout:   o.Stall,
		ResponseHeaderTimeout: o.Stall,
		DisableCompression:    true, // unpacked below, so that progress counts what comes
		ForceAttemptHTTP2:     true,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: followed}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, text, nil)
	if err != nil {
		return List{}, fmt.Errorf("%w: %w", ErrURL, err)
	}
	req.Header.Set("Accept", "text/csv, */*;q=0.1")
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := client.Do(req)
	if err != nil {
		return List{}, downloadError(ctx, text, err)
	}
	defer resp.Body.Close()
	if err := checkStatus(resp, region, text); err != nil {
		return List{}, err
	}
	body := &arriving{r: resp.Body, total: resp.ContentLength, progress: o.Progress, alive: func() { stall.Reset(o.Stall) }}
	list, err := unpacked(body, resp.Header.Get("Content-Encoding"), o.MaxBytes, region)
	switch {
	case body.err != nil:
		return List{}, downloadError(ctx, text, body.err)
	case err != nil:
		return List{}, fmt.Errorf("%s: %w", shown(text), err)
	case body.total >= 0 && body.n != body.total:
		return List{}, fmt.Errorf("%w: %s: %w", ErrDownload, shown(text), body.short())
	}
	list.Table.Date, list.Table.Source = list.Published.Format(time.DateOnly), shown(text)
	return list, nil
}

func orInt[T int64 | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

func followed(req *http.Request, via []*http.Request) error {
	if len(via) >= 5 {
		return fmt.Errorf("%w: it is redirected again and again", ErrURL)
	}
	return checkURL(req.URL)
}

func checkStatus(resp *http.Response, region, text string) error {
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusForbidden, http.StatusNotFound:
		return fmt.Errorf("%w: region %s: %s answers HTTP %d", ErrNoList, region, shown(text), resp.StatusCode)
	default:
		return fmt.Errorf("%w: %s answers HTTP %d", ErrDownload, shown(text), resp.StatusCode)
	}
	if kind := strings.ToLower(resp.Header.Get("Content-Type")); strings.HasPrefix(kind, "text/html") {
		return fmt.Errorf("%s: %w: it is a web page (HTML)", shown(text), ErrFormat)
	}
	return nil
}

// unpacked reads the list as it was before it was packed for the way.
func unpacked(body io.Reader, encoding string, most int64, region string) (List, error) {
	var in io.Reader
	switch strings.ToLower(encoding) {
	case "", "identity":
		in = body
	case "gzip":
		z, err := gzip.NewReader(body)
		if err != nil {
			return List{}, fmt.Errorf("%w: gzip: %w", ErrFormat, err)
		}
		in = z
	default:
		return List{}, fmt.Errorf("%w: it is packed with %q", ErrFormat, clip(encoding))
	}
	return Read(&capped{r: in, left: most, most: most}, region)
}

// downloadError says why nothing more came. A cancelled caller's error stays
// what it is.
func downloadError(ctx context.Context, text string, err error) error {
	var inner *url.Error
	if errors.As(err, &inner) {
		err = inner.Err // it repeats the address
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if errors.Is(err, ErrURL) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrDownload, shown(text), err)
}

// shown is an address without what may be secret in it.
func shown(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return clip(text)
	}
	u.RawQuery, u.Fragment = "", ""
	return u.Redacted()
}

// arriving counts what comes over the network, and remembers why it ended.
type arriving struct {
	r        io.Reader
	n, total int64
	progress func(done, total int64)
	alive    func()
	err      error
}

func (a *arriving) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	a.n += int64(n)
	if n > 0 {
		a.alive()
		if a.progress != nil {
			a.progress(a.n, a.total)
		}
	}
	switch {
	case err == nil || errors.Is(err, io.EOF):
	case errors.Is(err, io.ErrUnexpectedEOF):
		a.err = a.short()
	default:
		a.err = err
	}
	return n, err
}

func (a *arriving) short() error {
	if a.total < 0 {
		return fmt.Errorf("it ends in the middle, after %d bytes", a.n)
	}
	return fmt.Errorf("it ends after %d of %d bytes", a.n, a.total)
}

// capped ends with an error, not with EOF, when there is more than allowed.
type capped struct {
	r          io.Reader
	left, most int64
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("%w: it has more than %d bytes", ErrFormat, c.most)
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) { // gzip's; the network's own is remembered by arriving
		err = fmt.Errorf("%w: it ends in the middle", ErrDownload)
	}
	return n, err
}
