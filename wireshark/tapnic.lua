-- Wireshark post-dissector of tapnic's captures: it shows what the comment of a packet, or the custom
-- block of an event, says about mbufs, pages, descriptors, links and reasons. docs/capture.md describes
-- both. Written by `tapnic capture --install-wireshark`.

local tapnic = Proto('tapnic', 'tapnic')

local F = {
  id = ProtoField.uint32('tapnic.id', 'Packet id'),
  point = ProtoField.string('tapnic.point', 'Point'),
  dir = ProtoField.string('tapnic.dir', 'Direction'),
  csum = ProtoField.string('tapnic.csum', 'Checksum'),
  queue = ProtoField.uint16('tapnic.queue', 'Queue'),
  event = ProtoField.bool('tapnic.event', 'Event without a packet'),
  mbufs = ProtoField.uint32('tapnic.mbufs', 'Mbufs'),
  cut = ProtoField.bool('tapnic.mbufs.cut', 'More mbufs or items follow'),
  mbuf = ProtoField.string('tapnic.mbuf', 'Mbuf'),
  mbuf_kind = ProtoField.string('tapnic.mbuf.kind', 'Kind'),
  mbuf_flags = ProtoField.string('tapnic.mbuf.flags', 'Flags'),
  mbuf_len = ProtoField.uint32('tapnic.mbuf.len', 'Length'),
  mbuf_off = ProtoField.uint32('tapnic.mbuf.off', 'Offset'),
  mbuf_refs = ProtoField.uint32('tapnic.mbuf.refs', 'References'),
  mbuf_hdr = ProtoField.uint32('tapnic.mbuf.hdr', 'Header bytes'),
  mbuf_trail = ProtoField.uint32('tapnic.mbuf.trail', 'Trailer bytes'),
  mbuf_pages = ProtoField.uint32('tapnic.mbuf.pages', 'Pages'),
  page = ProtoField.uint64('tapnic.page', 'Page', base.HEX),
  desc = ProtoField.string('tapnic.desc', 'Descriptor'),
  desc_ring = ProtoField.uint32('tapnic.desc.ring', 'Ring'),
  desc_slot = ProtoField.uint32('tapnic.desc.slot', 'Slot'),
  desc_type = ProtoField.string('tapnic.desc.type', 'Type'),
  desc_addr = ProtoField.uint64('tapnic.desc.addr', 'Address', base.HEX),
  desc_len = ProtoField.uint32('tapnic.desc.len', 'Length'),
  desc_vlan = ProtoField.uint32('tapnic.desc.vlan', 'VLAN tag', base.HEX),
  desc_flags = ProtoField.string('tapnic.desc.flags', 'Flags'),
  desc_word = ProtoField.uint32('tapnic.desc.status', 'Command or status', base.HEX),
  desc_mss = ProtoField.uint32('tapnic.desc.mss', 'Segment size'),
  desc_hdrlen = ProtoField.string('tapnic.desc.hdrlen', 'Header bytes (Ethernet, IP, TCP or UDP)'),
  desc_tag = ProtoField.uint32('tapnic.desc.tag', 'Packet id'),
  desc_segs = ProtoField.uint32('tapnic.desc.segs', 'Segments'),
  link = ProtoField.string('tapnic.link', 'Link'),
  link_kind = ProtoField.string('tapnic.link.kind', 'Kind'),
  link_id = ProtoField.uint32('tapnic.link.id', 'Packet id'),
  link_n = ProtoField.uint32('tapnic.link.n', 'Index'),
  why = ProtoField.string('tapnic.why', 'Why'),
  why_what = ProtoField.string('tapnic.why.what', 'What'),
  why_reason = ProtoField.string('tapnic.why.reason', 'Reason'),
  why_bytes = ProtoField.uint32('tapnic.why.bytes', 'Bytes'),
  socket = ProtoField.string('tapnic.socket', 'Socket'),
  socket_id = ProtoField.uint32('tapnic.socket.id', 'Number'),
  socket_first = ProtoField.uint64('tapnic.socket.first', 'First byte of the stream'),
  socket_bytes = ProtoField.uint64('tapnic.socket.bytes', 'Bytes'),
}
local all = {}
for _, field in pairs(F) do
  all[#all + 1] = field
end
tapnic.fields = all

local unfinished =
  ProtoExpert.new('tapnic.malformed', 'Unknown or incomplete metadata', expert.group.MALFORMED, expert.severity.WARN)
tapnic.experts = { unfinished }

local frame_comment = Field.new('frame.comment')
local frame_interface = Field.new('frame.interface_name')

-- Names by number, as in src/sys/capture_meta.ts and src/sys/capture.ts.
local POINTS = { [0] = 'sockbuf', 'ip', 'if', 'ring', 'wire' }
local DIRS = { 'out', 'in' }
local CSUMS = { [0] = 'unknown', 'nic', 'verified', 'bad', 'software' }
local LINKS = { [0] = 'none', 'tso', 'fragment', 'retransmission', 'lro' }
local WHYS = { [0] = 'none', 'conversion', 'copy', 'drop', 'map', 'fault', 'wait' }
local MBUFS = { [0] = 'int', 'clust', 'nomap', 'sfbuf', 'ext' }
local MBUF_FLAGS = { 'pkthdr', 'ext', 'nomap', 'rdonly', 'notready' }

-- Bits of descriptors of `tn`, as in src/dev/tn/tnreg.ts.
local TX_BITS = {
  { 0x1, 'EOP' },
  { 0x2, 'RS' },
  { 0x4, 'CTX' },
  { 0x8, 'VLE' },
  { 0x10, 'IXSM' },
  { 0x20, 'TXSM' },
  { 0x40, 'TSE' },
  { 0x80, 'V6' },
  { 0x100, 'TCP' },
  { 0x40000000, 'ERR' },
  { 0x80000000, 'DD' },
}
local RX_BITS = {
  { 0x1, 'EOP' },
  { 0x2, 'VP' },
  { 0x4, 'IPCS' },
  { 0x8, 'L4CS' },
  { 0x10, 'IPE' },
  { 0x20, 'L4E' },
  { 0x40000000, 'ERR' },
  { 0x80000000, 'DD' },
}
local CTX = 0x4

local function has(word, bit)
  return math.floor(word / bit) % 2 == 1
end

local function flag_names(bits, word)
  local names = {}
  for _, pair in ipairs(bits) do
    if has(word, pair[1]) then
      names[#names + 1] = pair[2]
    end
  end
  return table.concat(names, ',')
end

-- A number of a comment, limited so that a comment of a hostile file cannot raise an error.
local function u32(text)
  local n = tonumber(text, 10)
  if n == nil or n < 0 or n > 0xffffffff or n ~= math.floor(n) then
    return nil
  end
  return n
end

local function u64(text)
  local n = tonumber(text, 10)
  if n == nil or n < 0 or n > 9007199254740991 then
    return nil
  end
  return UInt64(n % 4294967296, math.floor(n / 4294967296))
end

local function add_u32(tree, field, text)
  local n = text and u32(text)
  if n then
    tree:add(field, n):set_generated()
  end
end

local function add_hex64(tree, field, digits)
  if digits:match('^%x+$') and #digits <= 16 then
    tree:add(field, UInt64.fromhex(digits)):set_generated()
  end
end

-- Packet context of one frame: its tree and texts for the top line.
local function add_mbuf(tree, text)
  local words, len, rest = text:match('^(%S+) (%d+)(.*)$')
  if not words then
    return false
  end
  local item = tree:add(F.mbuf, text)
  item:set_generated()
  local kind, flags = words:match('^([^,]*),?(.*)$')
  item:add(F.mbuf_kind, kind):set_generated()
  if flags ~= '' then
    item:add(F.mbuf_flags, flags):set_generated()
  end
  add_u32(item, F.mbuf_len, len)
  add_u32(item, F.mbuf_off, rest:match(' off=(%d+)'))
  add_u32(item, F.mbuf_refs, rest:match(' refs=(%d+)'))
  add_u32(item, F.mbuf_hdr, rest:match(' hdr=(%d+)'))
  add_u32(item, F.mbuf_trail, rest:match(' trail=(%d+)'))
  local pages = rest:match(' pages=(%S+)')
  if pages then
    local n = 0
    local at = {}
    for page in pages:gmatch('0x(%x+)') do
      n = n + 1
      at[n] = page
    end
    item:add(F.mbuf_pages, n):set_generated()
    for _, page in ipairs(at) do
      add_hex64(item, F.page, page)
    end
  end
  return true
end

local function add_chain(tree, value)
  local list = value:match('^%[(.*)%]$') or value:match('^%[(.*)$')
  if not list then
    return
  end
  local texts = {}
  for text in (list .. ' | '):gmatch('(.-) | ') do
    texts[#texts + 1] = text
  end
  local cut = not value:match('%]$')
  if texts[#texts] == '...' then
    cut = true
    texts[#texts] = nil
  end
  local top = tree:add(F.mbufs, #texts)
  top:set_generated()
  for _, text in ipairs(texts) do
    if not add_mbuf(top, text) then
      cut = true
    end
  end
  if cut then
    top:add(F.cut, true):set_generated()
  end
end

-- The little-endian 32-bit word at byte `at` of a descriptor in hexadecimal.
local function word(hex, at)
  local b0, b1, b2, b3 = hex:match('^(%x%x)(%x%x)(%x%x)(%x%x)', 2 * at + 1)
  return tonumber(b3 .. b2 .. b1 .. b0, 16)
end

local function decode_tn(item, hex, dir)
  local stat = word(hex, 12)
  local high, low = word(hex, 4), word(hex, 0)
  local len = word(hex, 8)
  item:add(F.desc_word, stat):set_generated()
  if dir == 'out' and has(stat, CTX) then
    item:add(F.desc_type, 'context'):set_generated()
    item:add(F.desc_flags, flag_names(TX_BITS, stat)):set_generated()
    local l2, l3, l4 = low % 256, math.floor(low / 256) % 512, math.floor(low / 131072) % 256
    item:add(F.desc_hdrlen, string.format('%d, %d, %d', l2, l3, l4)):set_generated()
    item:add(F.desc_mss, high % 65536):set_generated()
    item:add(F.desc_tag, len):set_generated()
    item:append_text(' (context: ' .. flag_names(TX_BITS, stat) .. ')')
    return
  end
  local bits = dir == 'out' and TX_BITS or RX_BITS
  item:add(F.desc_type, dir == 'out' and 'data' or 'receive'):set_generated()
  item:add(F.desc_addr, UInt64(low, high)):set_generated()
  item:add(F.desc_len, len % 65536):set_generated()
  if has(stat, dir == 'out' and 0x8 or 0x2) then
    item:add(F.desc_vlan, math.floor(len / 65536)):set_generated()
  end
  local flags = flag_names(bits, stat)
  if flags ~= '' then
    item:add(F.desc_flags, flags):set_generated()
  end
  if dir ~= 'out' and has(stat, 0x1) then
    item:add(F.desc_segs, math.floor(stat / 65536) % 256):set_generated()
  end
  item:append_text(string.format(' (%d bytes at 0x%x%s)', len % 65536, high * 4294967296 + low,
    flags == '' and '' or ': ' .. flags))
end

local function add_descs(tree, value, dir, model)
  local ring, slot, list = value:match('^ring (%d+) slot (%d+):%s*(.*)$')
  if not ring then
    return
  end
  local n = 0
  for hex in list:gmatch('%x+') do
    local item = tree:add(F.desc, hex)
    item:set_generated()
    add_u32(item, F.desc_ring, ring)
    item:add(F.desc_slot, (u32(slot) or 0) + n):set_generated()
    if model == 'tn' and #hex == 32 then
      decode_tn(item, hex, dir)
    end
    n = n + 1
  end
end

local function add_link(tree, value, seen)
  local kind, ids, n = value:match('^(%S+) of (%S*) n=(%d+)$')
  if not kind then
    return
  end
  local item = tree:add(F.link, value)
  item:set_generated()
  item:add(F.link_kind, kind):set_generated()
  for id in ids:gmatch('%d+') do
    add_u32(item, F.link_id, id)
  end
  add_u32(item, F.link_n, n)
  seen.notes[#seen.notes + 1] = kind .. ' of ' .. ids
end

local function add_why(tree, value, seen)
  local what, reason, bytes = value:match('^(%S+) (.*) (%d+)$')
  if not what then
    return
  end
  local item = tree:add(F.why, value)
  item:set_generated()
  item:add(F.why_what, what):set_generated()
  item:add(F.why_reason, reason):set_generated()
  add_u32(item, F.why_bytes, bytes)
  seen.notes[#seen.notes + 1] = what .. ' ' .. reason
end

local function add_socket(tree, value)
  local id, first, bytes = value:match('^(%d+) first=(%d+) bytes=(%d+)$')
  if not id then
    return
  end
  local item = tree:add(F.socket, value)
  item:set_generated()
  add_u32(item, F.socket_id, id)
  local n = u64(first)
  if n then
    item:add(F.socket_first, n):set_generated()
  end
  n = u64(bytes)
  if n then
    item:add(F.socket_bytes, n):set_generated()
  end
end

-- Adds the fields of a comment, or of the text of an event.
local function add_text(tree, text, model)
  local seen = { notes = {} }
  local dir = text:match('; dir=(%a+)') or ''
  if #text >= 16384 and text:match('%.%.%.$') then
    tree:add(F.cut, true):set_generated()
  end
  for field in (text .. '; '):gmatch('(.-); ') do
    local key, value = field:match('^(%a+)=(.*)$')
    if key == 'id' then
      seen.id = value
      add_u32(tree, F.id, value)
    elseif key == 'point' then
      seen.point = value
      tree:add(F.point, value):set_generated()
    elseif key == 'dir' then
      tree:add(F.dir, value):set_generated()
    elseif key == 'csum' then
      tree:add(F.csum, value):set_generated()
    elseif key == 'chain' then
      add_chain(tree, value)
    elseif key == 'descs' then
      add_descs(tree, value, dir, model)
    elseif key == 'link' then
      add_link(tree, value, seen)
    elseif key == 'why' then
      add_why(tree, value, seen)
    elseif key == 'socket' then
      add_socket(tree, value)
    end
  end
  tree:append_text(string.format(', id %s, %s %s', seen.id or '?', seen.point or '?', dir))
  if #seen.notes > 0 then
    tree:append_text(' (' .. table.concat(seen.notes, ', ') .. ')')
  end
end

-- The items of an event as the text of a comment. Returns the text, and whether it is complete.
local ITEM = {}
ITEM[1] = function(v)
  if v:len() < 12 then
    return nil
  end
  local text = string.format('id=%d; point=%s', v(0, 4):le_uint(), POINTS[v(4, 1):uint()] or 'unknown')
  local dir = DIRS[v(5, 1):uint()]
  if dir then
    text = text .. '; dir=' .. dir
  end
  local csum = v(8, 2):le_uint()
  if csum ~= 0 then
    text = text .. '; csum=' .. (CSUMS[csum] or 'unknown')
  end
  return text
end
ITEM[2] = function(v)
  local parts, at = {}, 4
  local n = v(0, 2):le_uint()
  for _ = 1, n do
    if at + 20 > v:len() then
      break
    end
    local pages = {}
    local npages = v(at + 16, 2):le_uint()
    for i = 0, npages - 1 do
      local p = at + 20 + 8 * i
      if p + 8 > v:len() then
        break
      end
      pages[#pages + 1] = '0x' .. v(p, 8):le_uint64():tohex()
    end
    local names = MBUFS[v(at, 1):uint()] or 'unknown'
    for bit, name in ipairs(MBUF_FLAGS) do
      if has(v(at + 1, 1):uint(), 2 ^ (bit - 1)) then
        names = names .. ',' .. name
      end
    end
    local text = string.format('%s %d off=%d refs=%d', names, v(at + 4, 4):le_uint(), v(at + 8, 4):le_uint(),
      v(at + 2, 2):le_uint())
    if #pages > 0 then
      text = text .. ' pages=' .. table.concat(pages, ',')
    end
    parts[#parts + 1] = text
    at = at + 20 + 8 * npages
  end
  if v(2, 2):le_uint() % 2 == 1 or #parts < n then
    parts[#parts + 1] = '...'
  end
  return 'chain=[' .. table.concat(parts, ' | ') .. ']'
end
ITEM[3] = function(v)
  if v:len() < 8 then
    return nil
  end
  local size, list = v(6, 2):le_uint(), {}
  if size > 0 then
    for i = 0, v(4, 2):le_uint() - 1 do
      if 8 + (i + 1) * size > v:len() then
        break
      end
      list[#list + 1] = v(8 + i * size, size):bytes():tohex(true)
    end
  end
  return string.format('descs=ring %d slot %d: %s', v(0, 2):le_uint(), v(2, 2):le_uint(), table.concat(list, ','))
end
ITEM[4] = function(v)
  local ids = {}
  for at = 4, v:len() - 4, 4 do
    ids[#ids + 1] = string.format('%d', v(at, 4):le_uint())
  end
  return string.format('link=%s of %s n=%d', LINKS[v(0, 2):le_uint()] or 'unknown', table.concat(ids, ','),
    v(2, 2):le_uint())
end
ITEM[5] = function(v)
  if v:len() < 8 then
    return nil
  end
  local reason = v:len() > 8 and v(8):string() or string.format('%d', v(2, 2):le_uint())
  return string.format('why=%s %s %d', WHYS[v(0, 2):le_uint()] or 'unknown', reason, v(4, 4):le_uint())
end
ITEM[6] = function(v)
  if v:len() < 24 then
    return nil
  end
  return string.format('socket=%d first=%.0f bytes=%.0f', v(0, 4):le_uint(), v(8, 8):le_float(), v(16, 8):le_float())
end

local function text_of(tvb)
  local fields, at = {}, 8
  while at + 4 <= tvb:len() do
    local kind, len = tvb(at, 2):le_uint(), tvb(at + 2, 2):le_uint()
    if at + 4 + len > tvb:len() then
      return table.concat(fields, '; '), false
    end
    local item = ITEM[kind]
    if item then
      local text = len >= 4 and item(tvb:range(at + 4, len):tvb()) or nil
      if not text then
        return table.concat(fields, '; '), false
      end
      fields[#fields + 1] = text
    end
    at = at + 4 + len + (-len) % 4
  end
  return table.concat(fields, '; '), true
end

-- The model of the NIC from an interface's name, such as tn0@ring.
local function model_of()
  local name = frame_interface()
  return name and tostring(name.value):match('^(%a+)%d*@') or ''
end

local MAGIC = 'TPNC'

function tapnic.dissector(tvb, pinfo, root)
  for _, comment in ipairs({ frame_comment() }) do
    local text = tostring(comment.value)
    if text:match('^id=%d+; point=%l+') then
      local tree = root:add(tapnic)
      tree:set_generated()
      add_text(tree, text, model_of())
    end
  end
  if tvb:len() >= 8 and tvb(0, 4):string() == MAGIC and tvb(4, 1):uint() == 1 then
    local tree = root:add(tapnic, tvb())
    tree:add(F.event, true):set_generated()
    local text, complete = text_of(tvb)
    add_text(tree, text, model_of())
    if not complete then
      tree:add_proto_expert_info(unfinished)
    end
    pinfo.cols.protocol = 'tapnic'
    pinfo.cols.info = text
  end
end

register_postdissector(tapnic)
