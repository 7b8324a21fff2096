<?php
// The algorithm of 2011: publishing touches a file, subscribing sleeps and
// looks, twenty times two seconds.
function event_file($id)
{
    return getenv('COMET_DIRECTORY') . '/' . basename($id) . '.comet';
}

header('Content-Type: application/json');
if (isset($_GET['publish'])) {
    echo json_encode(touch(event_file($_GET['publish'])));
    exit;
}
$since = array_map('intval', $_GET['subscribed']);
$begin = time();
for ($try = 0; $try < 20; $try++) {
    $changed = [];
    foreach ($since as $id => $time) {
        clearstatcache();
        $now = is_file(event_file($id)) ? filemtime(event_file($id)) : 0;
        if ($now > ($time ?: $begin - 1)) {
            $changed[$id] = $now;
        }
    }
    if ($changed) {
        echo json_encode(['s' => 1, 'k' => $changed]);
        exit;
    }
    sleep(2);
}
echo json_encode(['s' => 0]);
