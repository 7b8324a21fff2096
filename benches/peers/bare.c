/* A minimal CGI. It answers every request with the same bytes as NovComet. */
#include <unistd.h>

static const char answer[] =
    "Status: 200 OK\r\n"
    "Content-Type: application/json; charset=utf-8\r\n"
    "Cache-Control: no-store, no-cache, must-revalidate, no-transform\r\n"
    "Pragma: no-cache\r\n"
    "Expires: 0\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Content-Length: 4\r\n"
    "\r\n"
    "true";

int main(void)
{
    return write(1, answer, sizeof answer - 1) != sizeof answer - 1;
}
