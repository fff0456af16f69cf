package ec2sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// action is one API action: what it does and which parameters it takes.
type action struct {
	do       func(*Server, *request) (response, error)
	required []string
	optional []string // top-level names, without ".n"
}

var list = []string{"Filter", "MaxResults", "NextToken", "IncludeManagedResources"}

func with(base []string, more ...string) []string { return append(slices.Clone(base), more...) }

var actions = map[string]action{
	"CreateVolume": {(*Server).createVolume, nil, []string{
		"AvailabilityZone", "AvailabilityZoneId", "ClientToken", "Encrypted", "Iops", "KmsKeyId", "MultiAttachEnabled",
		"Size", "SnapshotId", "TagSpecification", "Throughput", "VolumeInitializationRate", "VolumeType",
	}},
	"DeleteVolume":                 {(*Server).deleteVolume, []string{"VolumeId"}, nil},
	"DescribeVolumes":              {(*Server).describeVolumes, nil, with(list, "VolumeId")},
	"AttachVolume":                 {(*Server).attachVolume, []string{"VolumeId", "InstanceId", "Device"}, []string{"EbsCardIndex"}},
	"DetachVolume":                 {(*Server).detachVolume, []string{"VolumeId"}, []string{"InstanceId", "Device", "Force"}},
	"ModifyVolume":                 {(*Server).modifyVolume, []string{"VolumeId"}, []string{"Size", "VolumeType", "Iops", "Throughput", "MultiAttachEnabled"}},
	"DescribeVolumesModifications": {(*Server).describeVolumesModifications, nil, with(list, "VolumeId")},
	"DescribeVolumeStatus":         {(*Server).describeVolumeStatus, nil, with(list, "VolumeId")},
	"CreateSnapshot":               {(*Server).createSnapshot, []string{"VolumeId"}, []string{"Description", "TagSpecification"}},
	"CreateSnapshots":              {(*Server).createSnapshots, nil, []string{"Description", "InstanceSpecification", "TagSpecification", "CopyTagsFromSource"}},
	"DescribeSnapshots":            {(*Server).describeSnapshots, nil, with(list, "SnapshotId", "Owner", "RestorableBy")},
	"DeleteSnapshot":               {(*Server).deleteSnapshot, []string{"SnapshotId"}, nil},
	"CreateTags":                   {(*Server).createTags, nil, []string{"ResourceId", "Tag"}},
	"DeleteTags":                   {(*Server).deleteTags, nil, []string{"ResourceId", "Tag"}},
	"DescribeTags":                 {(*Server).describeTags, nil, list},
	"DescribeInstances":            {(*Server).describeInstances, nil, with(list, "InstanceId")},
	"TerminateInstances":           {(*Server).terminateInstances, nil, []string{"InstanceId", "Force", "SkipOsShutdown"}},
	"ModifyInstanceAttribute":      {(*Server).modifyInstanceAttribute, []string{"InstanceId"}, []string{"BlockDeviceMapping"}},
	"DescribeInstanceTypes":        {(*Server).describeInstanceTypes, nil, with(list, "InstanceType", "IncludeUnsupportedInRegion")},
	"DescribeAvailabilityZones":    {(*Server).describeAvailabilityZones, nil, []string{"Filter", "ZoneName", "ZoneId", "AllAvailabilityZones"}},
}

// serveAPI answers one query protocol request.
func (s *Server) serveAPI(w http.ResponseWriter, hr *http.Request) {
	ctx, cancel := context.WithCancel(hr.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()

	hr.Body = http.MaxBytesReader(w, hr.Body, 1<<20)
	if err := hr.ParseForm(); err != nil {
		s.answer(w, uuid.NewString(), nil, apiErr("MalformedQueryString", "The query string contains a syntax error"))
		return
	}
	r := &request{ctx: ctx, action: hr.Form.Get("Action"), id: uuid.NewString(), form: hr.Form}
	call := Call{Action: r.action, Time: s.clk.Now(), RequestID: r.id, Params: params(r.form)}
	faults := s.faults.take(r.action, r.form)
	body, err := s.run(r, faults, &call)
	call.Effect = err == nil

	for _, f := range faults {
		call.Faults = append(call.Faults, f.ID)
		pause(ctx, f.DelayAfter)
		if e := f.err(); e != nil && f.After && err == nil {
			err = e
		}
		call.Lost = call.Lost || f.LoseAnswer
	}
	call.Code = codeOf(err)
	s.calls.add(call)
	s.opt.Logger.Debug("call", "action", r.action, "code", call.Code, "request", r.id)
	if call.Lost {
		hangUp(w)
		return
	}
	var data []byte
	if err == nil {
		data, err = encode(r.action, r.id, body)
	}
	s.answer(w, r.id, data, err)
}

// run admits the call, then acts. An error means that nothing was changed.
func (s *Server) run(r *request, faults []Fault, call *Call) (response, error) {
	for _, f := range faults {
		pause(r.ctx, f.DelayBefore)
	}
	if err := s.throttle.take(r.action, s.clk.Now()); err != nil {
		return nil, err
	}
	for _, f := range faults {
		if e := f.err(); e != nil && !f.After {
			return nil, e
		}
		if f.LoseAnswer && f.Before {
			call.Lost = true
			return nil, apiErr("InternalError", "The connection was cut.")
		}
		r.hang = r.hang || f.Hang
		if f.FailAsync != "" {
			r.failAsync, r.failMessage = f.FailAsync, f.reason()
		}
	}
	a, ok := actions[r.action]
	switch {
	case r.action == "":
		return nil, apiErr("MissingAction", "The request must contain the parameter Action")
	case !ok:
		return nil, apiErr("InvalidAction", "The action %s is not valid for this web service.", r.action)
	}
	if err := s.authorize(r); err != nil {
		return nil, err
	}
	if err := a.checkParams(r); err != nil {
		return nil, err
	}
	if dry, err := r.bool("DryRun"); err != nil {
		return nil, err
	} else if dry {
		return nil, apiErr("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
	}
	return a.do(s, r)
}

func (a action) checkParams(r *request) error {
	for _, p := range a.required {
		if !r.has(p) {
			return errMissing(lowerFirst(p))
		}
	}
	for key := range r.form {
		top, _, _ := strings.Cut(key, ".")
		switch {
		case top == "Action" || top == "Version" || top == "DryRun" || strings.HasPrefix(key, "X-Amz-"):
		case slices.Contains(a.required, top) || slices.Contains(a.optional, top):
		default:
			return apiErr("UnknownParameter", "The parameter %s is not recognized", top)
		}
	}
	return nil
}

func (s *Server) answer(w http.ResponseWriter, id string, data []byte, err error) {
	status := http.StatusOK
	if err != nil {
		var e *apiError
		if !errors.As(err, &e) {
			s.opt.Logger.Error("request failed", "err", err)
			e = apiErr("InternalError", "%s", fmt.Sprint("An internal error has occurred: ", err))
		}
		status, data = e.Status, encodeError(e, id)
	}
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	w.Header().Set("Server", "AmazonEC2")
	w.Header().Set("X-Amzn-Requestid", id)
	w.WriteHeader(status)
	if _, err := w.Write(data); err != nil {
		s.opt.Logger.Debug("answer not delivered", "request", id, "err", err)
	}
}

// hangUp closes the client's connection without an answer.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the server closes the connection itself
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // best effort: a reset instead of a clean end
	}
	_ = conn.Close()
}

func codeOf(err error) string {
	var e *apiError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	}
	return "InternalError"
}

func params(form url.Values) map[string]string {
	out := map[string]string{}
	for k := range form {
		if k != "Action" && k != "Version" {
			out[k] = form.Get(k)
		}
	}
	return out
}
