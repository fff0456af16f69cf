package ec2sim

import (
	"bytes"
	"encoding/xml"
	"time"
)

const xmlns = "http://ec2.amazonaws.com/doc/2016-11-15/"

// response is the body of an answer; embed [meta] to be one.
type response interface{ setRequestID(id string) }

type meta struct {
	RequestID string `xml:"requestId"`
}

func (m *meta) setRequestID(id string) { m.RequestID = id }

// encode renders <{action}Response> with what body holds.
func encode(action, requestID string, body response) ([]byte, error) {
	body.setRequestID(requestID)
	var b bytes.Buffer
	b.WriteString(xml.Header)
	start := xml.StartElement{
		Name: xml.Name{Local: action + "Response"},
		Attr: []xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: xmlns}},
	}
	if err := xml.NewEncoder(&b).EncodeElement(body, start); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

type errorXML struct {
	XMLName   xml.Name `xml:"Response"`
	Code      string   `xml:"Errors>Error>Code"`
	Message   string   `xml:"Errors>Error>Message"`
	RequestID string   `xml:"RequestID"`
}

func encodeError(e *apiError, requestID string) []byte {
	out, err := xml.Marshal(errorXML{Code: e.Code, Message: e.Message, RequestID: requestID})
	if err != nil {
		return nil // strings always encode
	}
	return append([]byte(xml.Header), out...)
}

func timeXML(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func optTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return timeXML(t)
}

func optInt(n int32) *int32 {
	if n == 0 {
		return nil
	}
	return &n
}

type tagXML struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

func tagsXML(tags map[string]string) []tagXML {
	var out []tagXML
	for _, k := range sortedKeys(tags) {
		out = append(out, tagXML{k, tags[k]})
	}
	return out
}
